// The attributes that the types refer to: the checker has no System.Runtime.Serialization.
namespace System.Runtime.Serialization

type DataContractAttribute() =
    inherit System.Attribute()

type DataMemberAttribute() =
    inherit System.Attribute()
    member val Name = "" with get, set
    member val EmitDefaultValue = true with get, set

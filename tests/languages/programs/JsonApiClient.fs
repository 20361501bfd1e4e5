// Stands in for ServiceStack's F# client, for the type checker.
namespace ServiceStack

open AiServer

type JsonApiClient(baseUrl: string) =
    member _.BaseUrl = baseUrl
    member val BearerToken = "" with get, set
    member _.Post<'T>(path: string, request: obj) : 'T = failwithf "%s %O" path request
    member this.Post<'T>(request: IReturn<'T>) : 'T = this.Post<'T>("/api/" + request.GetType().Name, request)
    member _.Get<'T>(request: IReturn<'T>) : 'T = failwithf "%O" request

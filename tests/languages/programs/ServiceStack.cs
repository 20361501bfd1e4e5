// Stands in for ServiceStack's C# client: names of DataMember, no nulls, enumerations by name, dates as ISO 8601.
using System;
using System.Collections;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Reflection;
using System.Runtime.Serialization;
using System.Text;
using System.Web.Script.Serialization;
using AiServer;

namespace ServiceStack
{
    public class WebServiceException : Exception
    {
        public ResponseStatus ResponseStatus;
        public WebServiceException(ResponseStatus status) : base(status.Message) { ResponseStatus = status; }
    }

    public class JsonApiClient
    {
        readonly string baseUrl;
        readonly JavaScriptSerializer json = new JavaScriptSerializer();
        public string BearerToken;
        public JsonApiClient(string baseUrl) { this.baseUrl = baseUrl; }

        public T Post<T>(IReturn<T> request) { return Post<T>("/api/" + request.GetType().Name, request); }

        public T Post<T>(string path, object request) { return Send<T>("POST", path, json.Serialize(ToJson(request))); }

        public T Get<T>(IReturn<T> request)
        {
            var members = (Dictionary<string, object>) ToJson(request);
            var query = members.Select(member => member.Key + "=" + Uri.EscapeDataString(member.Value.ToString()));
            return Send<T>("GET", "/api/" + request.GetType().Name + "?" + string.Join("&", query), null);
        }

        T Send<T>(string method, string path, string body)
        {
            var http = (HttpWebRequest) WebRequest.Create(baseUrl + path);
            http.Method = method;
            http.ContentType = "application/json";
            http.Headers["Authorization"] = "Bearer " + BearerToken;
            if (body != null)
                using (var stream = http.GetRequestStream())
                {
                    var bytes = Encoding.UTF8.GetBytes(body);
                    stream.Write(bytes, 0, bytes.Length);
                }
            try { return (T) FromJson(Read(http.GetResponse()), typeof(T)); }
            catch (WebException error)
            {
                var members = (IDictionary<string, object>) Read(error.Response);
                throw new WebServiceException((ResponseStatus) FromJson(members["responseStatus"], typeof(ResponseStatus)));
            }
        }

        object Read(WebResponse response)
        {
            using (var reader = new StreamReader(response.GetResponseStream()))
                return json.DeserializeObject(reader.ReadToEnd());
        }

        static IEnumerable<KeyValuePair<string, PropertyInfo>> Members(Type type)
        {
            return type.GetProperties().Select(property => new KeyValuePair<string, PropertyInfo>(
                property.GetCustomAttribute<DataMemberAttribute>().Name, property));
        }

        static object ToJson(object value)
        {
            if (value is Enum) return value.ToString();
            if (value is IDictionary)
                return ((IDictionary) value).Keys.Cast<object>().ToDictionary(k => k.ToString(), k => ToJson(((IDictionary) value)[k]));
            if (value is IEnumerable && !(value is string)) return ((IEnumerable) value).Cast<object>().Select(ToJson).ToList();
            if (value == null || value.GetType().GetCustomAttribute<DataContractAttribute>() == null) return value;
            return Members(value.GetType()).Where(member => member.Value.GetValue(value) != null)
                .ToDictionary(member => member.Key, member => ToJson(member.Value.GetValue(value)));
        }

        static object FromJson(object value, Type type)
        {
            type = Nullable.GetUnderlyingType(type) ?? type;
            if (value == null || type == typeof(object)) return value;
            if (type.IsEnum) return Enum.Parse(type, (string) value);
            if (type == typeof(DateTime)) return DateTime.Parse((string) value).ToUniversalTime();
            if (typeof(IList).IsAssignableFrom(type))
            {
                var list = (IList) Activator.CreateInstance(type);
                foreach (var item in (IEnumerable) value) list.Add(FromJson(item, type.GetGenericArguments()[0]));
                return list;
            }
            if (type.GetCustomAttribute<DataContractAttribute>() == null)
                return value is IConvertible ? Convert.ChangeType(value, type) : null;
            var result = Activator.CreateInstance(type);
            var members = (IDictionary<string, object>) value;
            foreach (var member in Members(type))
                if (members.ContainsKey(member.Key) && members[member.Key] != null)
                    member.Value.SetValue(result, FromJson(members[member.Key], member.Value.PropertyType));
            return result;
        }
    }
}

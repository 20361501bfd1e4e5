package net.servicestack.client;

public class WebServiceException extends RuntimeException {
    public final ResponseStatus responseStatus;

    WebServiceException(ResponseStatus responseStatus) {
        super(responseStatus.message);
        this.responseStatus = responseStatus;
    }
}

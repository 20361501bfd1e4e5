package net.servicestack.client;

import java.util.ArrayList;

public class ResponseStatus {
    public String errorCode, message;
    public ArrayList<ResponseError> errors;
}

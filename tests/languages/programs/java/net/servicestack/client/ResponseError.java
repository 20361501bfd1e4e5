package net.servicestack.client;

public class ResponseError { public String errorCode, fieldName, message; }

package net.servicestack.client;

public @interface DataContract {}

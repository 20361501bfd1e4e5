package net.servicestack.client;

public @interface DataMember { String Name() default ""; }

package net.servicestack.client;

import java.util.ArrayList;
import java.util.Arrays;

/** Stands in for the client's class of the same name. */
public class Utils {
    @SafeVarargs
    public static <T> ArrayList<T> createList(T... items) { return new ArrayList<>(Arrays.asList(items)); }
}

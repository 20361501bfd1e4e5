"""The real handlers with dying processes and lost messages, over fakes and the embedded cloud."""

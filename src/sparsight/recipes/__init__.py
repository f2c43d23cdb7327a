"""Published experiments, one function each: its keyword parameters are the command line, its value is a `Recipe`."""

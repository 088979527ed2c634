"""Published data sets as their makers distribute them, one file each: what tells a set, and its lists → rows."""

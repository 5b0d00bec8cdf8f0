"""From a call's arguments to the name of its entry, and from a function to the namespace that it owns.

names       every key there is in a store · shards: the several keys of one generation · keyvalue: the key-value API's
tags        the tags of a function · template: keys and tags as text with fields

A call's arguments:
    binding     from a call to its key · compiler: the functions that do it · memo: what they remember
    canonical   one value, one byte string; for types of the standard library (types), numpy, pandas, scipy and xarray
                (arrays), polars and pyarrow (tables), objects with fields (records), classes and functions (qualified)
    forms       what the encoders have in common · local: classes made inside functions
    refusal     why a value cannot be part of a key · passing: objects of one request, which never are

Who is the same function:
    identity    by its name, its code (code) and what it holds on to (captures), in one run of its module (execution)
    ownership   which function a namespace belongs to · places: what is remembered of them · clashes: what is said
"""

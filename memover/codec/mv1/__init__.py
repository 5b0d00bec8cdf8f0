"""The value format "mv1": the default codec, and one file for each family of values.

format      the bytes, in one table: stable for good
codec       `ValueCodec`, which joins the rest
writer      one value becomes one payload · reader: one payload becomes one value
scalars     values that are one piece · moments: dates, times, zones
containers  the standard library's containers, and what subclasses of builtins hold
records     named tuples, enums, exceptions, registered classes, subclasses of builtins
fields      dataclasses, attrs classes, Structs, pydantic models
serializer  what the two have in common
arrays      numpy · frames: pandas and polars
known       which classes stored bytes may rebuild
limits      what reading one payload may cost
refusal     why a value was refused, and where in it
plain       stored instances as plain builtins, for upgrades and messages
"""

"""What a class is, read in one place for keys, codec and schema.

    naming       the name by which every process knows a class
    registered   the classes that were registered with `register_value`
    layout       where the memory of an instance lies: builtin base, slots, dict
    kinds        what kind of class it is, and which fields it declares
    annotations  annotations as the program wrote them, and what the names in them stand for
    fields       what instances of a class hold, field by field, with types
    reach        the classes that an annotation names, directly or through the fields of others
    places       where a class is found by its name, and whether it still is

Nothing here imports a library: a class of pydantic, attrs or Django exists only where its library was imported.
"""

"""Codecs: how results become bytes and come back as they were.

base        what a codec is, and which one a `codec=` option names · mv1: the default codec · pickle: signed pickles
envelope    the bytes of an entry around its payload · compression: of payloads
sharing     what several callers may be given as it is · copier: private copies, quicker than decoding
faults      whose fault an exception is: a value's, or somebody's outside
"""

"""What a decorated function stores, as text that is reviewed: shapes, their fingerprints, and the lock that keeps both.

`shape` is the text and its fingerprint, `derive` finds the return annotation that it is made from and `reader` makes it,
`compare` says what changed, `mismatch` where a stored value differs, `body` fingerprints source, `lock` is `memover.lock`,
`rules` are the rules of a check and `findings` what it finds. No store is touched here.
"""

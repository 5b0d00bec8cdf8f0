"""What a decorated function stores, as text that is reviewed: shapes, their fingerprints, and the lock that keeps both.

`shape` is the text and its fingerprint, `derive` makes it from a return annotation, `compare` says what changed,
`body` fingerprints source, `lock` is `memover.lock`, `rules` is what a check finds. No store is touched here.
"""

"""The page of a running cache: `memover serve`, with `memover[web]` (Starlette, Jinja, uvicorn). Nothing else imports this.

`guard` decides who may ask and what a browser may do with the answer; `overview` looks at the store behind the page; `pages` makes
HTML of `templates`, in which everything from a store is escaped; `app` joins them; `static` is one stylesheet and one script.
"""

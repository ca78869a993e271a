"""Find texts by their words and by their meaning.

`index.SearchIndex` holds the documents of one agent. It finds them by words
(`lexical`, over `postings` and `neighbours`) and by meaning (`semantic`, over `vectors`
and `compressed`), and `fusion` makes one score of both. `queries` has what is asked and
answered; `language` turns text into terms, and `times` reads the times that a query
names. `caches` keeps indexes in memory; `kept` and `packing` persist them.
"""

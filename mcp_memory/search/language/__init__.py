"""Text to terms, in any language.

`analysis` cuts texts and queries into terms, `languages` recognizes languages and
stems words, `names` finds the names in a query.
"""

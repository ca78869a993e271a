"""Times that a question names: "yesterday", "the week before May 7", "去年五月".

`spans` is the entry. The text is split into words, each of a `WordClass`
(`vocabulary`, `words`). Rules over sequences of classes find times (`western`;
`eastern` for languages without spaces), `periods` does the arithmetic, and
`spans` reads the words around a time ("before", "between … and …").
"""

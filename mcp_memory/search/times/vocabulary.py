"""The classes of words that name times, and the words of each language.

A word has a class, which patterns are written in, and values: the number of a
month, the hours of an evening.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from mcp_memory.search.language.analysis import plain_letters


class WordClass(Enum):
    """What a word is for in a phrase that names a time."""

    # Words that name a time, alone or with a number.
    DAY = auto()
    """A day counted from today: "yesterday". Value: days from today."""
    HOURS_OF_DAY = auto()
    """A part of such a day in one word: "tonight". Values: days from today, first and last hour."""
    DAY_PART = auto()
    """A part of any day: "morning". Values: first and last hour; over 24 is the next day."""
    WEEKDAY = auto()
    """Value: 0 for Monday."""
    MONTH = auto()
    """Value: 1 for January."""
    SEASON = auto()
    """Also Christmas and "Q1". Value: the place in `periods.SEASONS`."""
    UNIT = auto()
    """A length of time: "weeks"."""
    WEEKEND = auto()
    YEAR = auto()
    """A number that is a year."""
    DATE = auto()
    """A whole date in digits, or a decade: "2023-05-07", "1990s"."""

    # Numbers.
    NUMBER = auto()
    """Value: the number; two values for a vague one, the fewest and the most ("a few")."""
    ONE = auto()
    """An article that can mean 1: "a week ago"."""
    ORDINAL = auto()
    """"first", "7th". Value: the number."""

    # Which one of several.
    LAST = auto()
    PAST = auto()
    """Last, but also without a number: "the past month"."""
    THIS = auto()
    NEXT = auto()
    THIRD = auto()
    """"early", "mid", "end of". Value: 0 for the beginning, 1 for the middle, 2 for the end."""

    # Words that put a time in relation to another.
    AGO = auto()
    """Stands after the length: "two weeks ago"."""
    AGO_IN_FRONT = auto()
    """Stands before the length: "il y a deux semaines"."""
    BEFORE = auto()
    BEFORE_OR_AGO = auto()
    """German "vor": "vor Juni" is before June, "vor zwei Wochen" is two weeks ago."""
    AFTER = auto()
    SINCE = auto()
    UNTIL = auto()
    BETWEEN = auto()
    FROM = auto()
    TO = auto()
    AND = auto()

    # Small words and marks.
    IN = auto()
    ON = auto()
    OF = auto()
    THE = auto()
    COMMA = auto()
    DASH = auto()
    OTHER = auto()
    """Everything else."""

    TIME = auto()
    """A phrase that names a time; the words around it are read after that."""


class Word(NamedTuple):
    """What a word of the tables is; `unit` is set for the class `UNIT`."""

    word_class: WordClass
    values: tuple[int, ...] = ()
    unit: str = ""


NAMING: Final = frozenset(
    {
        WordClass.DAY,
        WordClass.HOURS_OF_DAY,
        WordClass.DAY_PART,
        WordClass.WEEKDAY,
        WordClass.MONTH,
        WordClass.SEASON,
        WordClass.UNIT,
        WordClass.WEEKEND,
    }
)
"""A text without a word of these classes and without a year or date names no time."""

# By language, the words of each class. `_` joins the words of a phrase, `|` separates spellings,
# values stand after `=`. Without values, words of a class are numbered by their order; units
# are those of `_UNITS`. Of equal words the last counts, so the order of the classes matters.
_TABLES: Final = {
    "english": """
        DAY: day_before_yesterday=-2 yesterday=-1 today=0 tomorrow=1
            day_after_tomorrow=2
        HOURS_OF_DAY: last_night=-1,18,30 tonight=0,18,30 earlier_today=0,0,24
        DAY_PART: morning=5,12 afternoon=12,18 evening=17,24 night=18,30
        WEEKDAY: monday|mon tuesday|tue|tues wednesday|wed thursday|thu|thur|thurs
            friday|fri saturday|sat sunday|sun
        MONTH: january|jan february|feb march|mar april|apr may june|jun july|jul
            august|aug september|sep|sept october|oct november|nov december|dec
        SEASON: spring summer autumn|fall winter christmas|xmas
        NUMBER: one two three four five six seven eight nine ten eleven twelve
            couple_of=2 a_couple_of=2 couple=2 a_couple=2 few=2,5 a_few=2,5 several=3,7
            twenty=20 thirty=30
        ONE: a=1 an=1
        ORDINAL: first=1 second=2 third=3 fourth=4
        UNIT: day|days week|weeks month|months year|years hour|hours minute|minutes|mins
            quarter|quarters
        LAST: last previous
        PAST: past
        THIS: this
        NEXT: next coming upcoming
        AGO: ago
        BEFORE: before prior_to
        AFTER: after
        SINCE: since
        UNTIL: until till up_to
        BETWEEN: between
        FROM: from
        AND: and
        TO: to through thru
        IN: in during throughout over within
        ON: on at by
        THE: the
        OF: of
        THIRD: early=0 beginning=0 start=0 mid=1 middle=1 late=2 end=2
        WEEKEND: weekend
    """,
    "german": """
        DAY: vorgestern=-2 gestern=-1 heute=0 morgen=1 übermorgen=2
        HOURS_OF_DAY: heute_morgen=0,5,12 heute_früh=0,5,12 gestern_morgen=-1,5,12
            gestern_früh=-1,5,12 letzte_nacht=-1,18,30 heute_nacht=-1,18,30
        OTHER: guten_morgen am_morgen jeden_morgen der_morgen den_morgen
        DAY_PART: früh=5,12 vormittag=8,12 mittag=11,14 nachmittag=12,18 abend=17,24
            nacht=18,30
        WEEKDAY: montag dienstag mittwoch donnerstag freitag samstag|sonnabend sonntag
        MONTH: januar|jänner februar märz april mai juni juli august september oktober
            november dezember
        SEASON: frühling|frühjahr sommer herbst winter weihnachten
        NUMBER: eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf paar=2,5
            ein_paar=2,5 einigen=2,5 wenigen=2,5
        ONE: ein=1 eine=1 einem=1 einer=1 einen=1
        ORDINAL: ersten=1
        UNIT: tag|tage|tagen woche|wochen monat|monate|monaten|monats
            jahr|jahre|jahren|jahres stunde|stunden minute|minuten quartal
        LAST: letzte letzten letzter letztes letztem vorige vorigen voriges voriger
            vergangene vergangenen vergangenes vergangener
        THIS: diese diesen dieser dieses diesem
        NEXT: nächste nächsten nächstes nächster kommende kommenden kommendes
        BEFORE_OR_AGO: vor
        AFTER: nach
        SINCE: seit ab
        UNTIL: bis
        BETWEEN: zwischen
        FROM: von vom
        AND: und
        TO: bis_zum bis_zu
        IN: im in während
        ON: am an
        THE: der die das dem den des zum
        THIRD: anfang=0 beginn=0 mitte=1 ende=2
        WEEKEND: wochenende
    """,
    "french": """
        DAY: avant-hier=-2 hier=-1 aujourd'hui=0 demain=1 après-demain=2
        HOURS_OF_DAY: hier_soir=-1,17,24 hier_matin=-1,5,12 cette_nuit=-1,18,30
            ce_soir=0,17,24
        DAY_PART: matin=5,12 après-midi=12,18 soir=17,24 nuit=18,30
        WEEKDAY: lundi mardi mercredi jeudi vendredi samedi dimanche
        MONTH: janvier février mars avril mai juin juillet août septembre octobre
            novembre décembre
        SEASON: printemps été automne hiver noël
        NUMBER: deux=2 trois=3 quatre=4 cinq=5 six=6 sept=7 huit=8 neuf=9 dix=10 onze=11
            douze=12 quinze=15 quelques=2,5
        ONE: un=1 une=1
        ORDINAL: premier=1 1er=1
        UNIT: jour|jours semaine|semaines mois an|ans|année|années heure|heures
            minute|minutes trimestre
        LAST: dernier dernière derniers dernières passé passée passés passées
        THIS: ce cet cette ces
        NEXT: prochain prochaine
        AGO_IN_FRONT: il_y_a voici
        BEFORE: avant
        AFTER: après
        SINCE: depuis dès
        UNTIL: jusqu' jusque jusqu'à jusqu'en
        BETWEEN: entre
        AND: et
        TO: à au
        IN: en dans pendant durant
        THE: le la les l'
        OF: de du d' des
        THIRD: début=0 mi=1 milieu=1 fin=2
        WEEKEND: week-end weekend
    """,
    "spanish": """
        DAY: anteayer=-2 antier=-2 ayer=-1 hoy=0 mañana=1
        HOURS_OF_DAY: anoche=-1,18,30 esta_mañana=0,5,12 esta_tarde=0,12,20
            esta_noche=0,18,30 ayer_por_la_mañana=-1,5,12 ayer_por_la_tarde=-1,12,20
            ayer_por_la_noche=-1,18,30
        OTHER: la_mañana por_la_mañana de_la_mañana buenas_tardes
        WEEKDAY: lunes martes miércoles jueves viernes sábado domingo
        MONTH: enero febrero marzo abril mayo junio julio agosto septiembre|setiembre
            octubre noviembre diciembre
        SEASON: primavera verano otoño invierno navidad|navidades
        NUMBER: dos=2 tres=3 cuatro=4 cinco=5 seis=6 siete=7 ocho=8 nueve=9 diez=10 once=11
            doce=12 quince=15 unos=2,5 unas=2,5 pocos=2,5 pocas=2,5
        ONE: un=1 una=1 uno=1
        ORDINAL: primero=1
        UNIT: día|días semana|semanas mes|meses año|años hora|horas minuto|minutos
            trimestre
        LAST: pasado pasada pasados pasadas último última últimos últimas
        THIS: este esta estos estas
        NEXT: próximo próxima próximos próximas
        AGO_IN_FRONT: hace
        BEFORE: antes
        AFTER: después
        SINCE: desde
        UNTIL: hasta
        BETWEEN: entre
        AND: y
        TO: a al
        IN: en durante
        THE: el la los las
        OF: de del
        THIRD: principios=0 comienzos=0 mediados=1 finales=2 fines=2
        WEEKEND: fin_de_semana
    """,
}
_UNITS: Final = ("day", "week", "month", "year", "hour", "minute", "quarter")
_NUMBERED_FROM: Final = {
    WordClass.WEEKDAY: 0,
    WordClass.SEASON: 0,
    WordClass.MONTH: 1,
    WordClass.NUMBER: 1,
}


def _table(text: str) -> dict[str, Word]:
    """Return the words of a language's table, and its phrases, folded."""
    words: dict[str, Word] = {}
    word_class, position = WordClass.OTHER, 0
    for entry in text.split():
        if entry.endswith(":"):
            word_class, position = WordClass[entry[:-1]], 0
            continue
        spellings, _, values = entry.partition("=")
        if values:
            word = Word(word_class, tuple(int(value) for value in values.split(",")))
        elif word_class is WordClass.UNIT:
            word = Word(word_class, unit=_UNITS[position])
        elif word_class in _NUMBERED_FROM:
            word = Word(word_class, (_NUMBERED_FROM[word_class] + position,))
        else:
            word = Word(word_class)
        position += 1
        for spelling in spellings.replace("_", " ").split("|"):
            words[plain_letters(spelling)] = word
    return words


WORDS: Final = {language: _table(text) for language, text in _TABLES.items()}
"""By language: words and phrases, folded."""

NAMING_WORDS: Final = {
    language: frozenset(
        max(re.findall(r"\w+", phrase), key=len)
        for phrase, word in table.items()
        if word.word_class in NAMING
    )
    for language, table in WORDS.items()
}
"""By language: words of the `NAMING` classes; of a phrase its longest word."""

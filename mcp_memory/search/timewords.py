"""The words that name times, a table for each language.

A word has a class, which the grammar in `timephrases` is written in, and values.
Words that are written with `_` are phrases; `|` stands between spellings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from mcp_memory.search.analysis import plain_letters


class Word(NamedTuple):
    """A class, of one letter, and what it is worth."""

    kind: str
    values: tuple[int, ...] = ()
    unit: str = ""


STRONG: Final = frozenset("DnpWMSUw")
"""Classes without which, and without a number, no time is named."""

# The classes: D day from today, n part of such a day, p part of a day, W weekday, M month,
# S season, N number, 1 one, O ordinal, U unit, L last, P past, T this, X next, G ago (behind),
# A ago (before), V before or ago, B before, F after, C since, I until, K between, R from, J and,
# Q to, i in, a on, t the, o of, m part of a period, w weekend.
_ORDERED: Final = frozenset("WMSN")
_TABLES: Final = {
    "english": {
        "D": "day_before_yesterday=-2 yesterday=-1 today=0 tomorrow=1 day_after_tomorrow=2",
        "n": "last_night=-1,18,30 tonight=0,18,30 earlier_today=0,0,24",
        "p": "morning=5,12 afternoon=12,18 evening=17,24 night=18,30",
        "W": "monday|mon tuesday|tue|tues wednesday|wed thursday|thu|thur|thurs friday|fri "
        "saturday|sat sunday|sun",
        "M": "january|jan february|feb march|mar april|apr may june|jun july|jul august|aug "
        "september|sep|sept october|oct november|nov december|dec",
        "S": "spring summer autumn|fall winter christmas|xmas",
        "N": "one two three four five six seven eight nine ten eleven twelve",
        "N=": "couple_of=2 a_couple_of=2 couple=2 a_couple=2 few=2,5 a_few=2,5 several=3,7 "
        "twenty=20 thirty=30",
        "1": "a=1 an=1",
        "O": "first=1 second=2 third=3 fourth=4",
        "U": "day|days week|weeks month|months year|years hour|hours minute|minutes|mins "
        "quarter|quarters",
        "L": "last previous",
        "P": "past",
        "T": "this",
        "X": "next coming upcoming",
        "G": "ago",
        "B": "before prior_to",
        "F": "after",
        "C": "since",
        "I": "until till up_to",
        "K": "between",
        "R": "from",
        "J": "and",
        "Q": "to through thru",
        "i": "in during throughout over within",
        "a": "on at by",
        "t": "the",
        "o": "of",
        "m": "early=0 beginning=0 start=0 mid=1 middle=1 late=2 end=2",
        "w": "weekend",
    },
    "german": {
        "D": "vorgestern=-2 gestern=-1 heute=0 morgen=1 übermorgen=2",
        "n": "heute_morgen=0,5,12 heute_früh=0,5,12 gestern_morgen=-1,5,12 gestern_früh=-1,5,12 "
        "letzte_nacht=-1,18,30 heute_nacht=-1,18,30",
        ".": "guten_morgen am_morgen jeden_morgen der_morgen den_morgen",
        "p": "früh=5,12 vormittag=8,12 mittag=11,14 nachmittag=12,18 abend=17,24 nacht=18,30",
        "W": "montag dienstag mittwoch donnerstag freitag samstag|sonnabend sonntag",
        "M": "januar|jänner februar märz april mai juni juli august september oktober november "
        "dezember",
        "S": "frühling|frühjahr sommer herbst winter weihnachten",
        "N": "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "N=": "paar=2,5 ein_paar=2,5 einigen=2,5 wenigen=2,5",
        "1": "ein=1 eine=1 einem=1 einer=1 einen=1",
        "O": "ersten=1",
        "U": "tag|tage|tagen woche|wochen monat|monate|monaten|monats jahr|jahre|jahren|jahres "
        "stunde|stunden minute|minuten quartal",
        "L": "letzte letzten letzter letztes letztem vorige vorigen voriges voriger vergangene "
        "vergangenen vergangenes vergangener",
        "T": "diese diesen dieser dieses diesem",
        "X": "nächste nächsten nächstes nächster kommende kommenden kommendes",
        "V": "vor",
        "F": "nach",
        "C": "seit ab",
        "I": "bis",
        "K": "zwischen",
        "R": "von vom",
        "J": "und",
        "Q": "bis_zum bis_zu",
        "i": "im in während",
        "a": "am an",
        "t": "der die das dem den des zum",
        "m": "anfang=0 beginn=0 mitte=1 ende=2",
        "w": "wochenende",
    },
    "french": {
        "D": "avant-hier=-2 hier=-1 aujourd'hui=0 demain=1 après-demain=2",
        "n": "hier_soir=-1,17,24 hier_matin=-1,5,12 cette_nuit=-1,18,30 ce_soir=0,17,24",
        "p": "matin=5,12 après-midi=12,18 soir=17,24 nuit=18,30",
        "W": "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "M": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "S": "printemps été automne hiver noël",
        "N": "_ deux trois quatre cinq six sept huit neuf dix onze douze",
        "N=": "quelques=2,5 quinze=15",
        "1": "un=1 une=1",
        "O": "premier=1 1er=1",
        "U": "jour|jours semaine|semaines mois an|ans|année|années heure|heures minute|minutes "
        "trimestre",
        "L": "dernier dernière derniers dernières passé passée passés passées",
        "T": "ce cet cette ces",
        "X": "prochain prochaine",
        "A": "il_y_a voici",
        "B": "avant",
        "F": "après",
        "C": "depuis dès",
        "I": "jusqu' jusque jusqu'à jusqu'en",
        "K": "entre",
        "J": "et",
        "Q": "à au",
        "i": "en dans pendant durant",
        "t": "le la les l'",
        "o": "de du d' des",
        "m": "début=0 mi=1 milieu=1 fin=2",
        "w": "week-end weekend",
    },
    "spanish": {
        "D": "anteayer=-2 antier=-2 ayer=-1 hoy=0 mañana=1",
        "n": "anoche=-1,18,30 esta_mañana=0,5,12 esta_tarde=0,12,20 esta_noche=0,18,30 "
        "ayer_por_la_mañana=-1,5,12 ayer_por_la_tarde=-1,12,20 ayer_por_la_noche=-1,18,30",
        ".": "la_mañana por_la_mañana de_la_mañana buenas_tardes",
        "W": "lunes martes miércoles jueves viernes sábado domingo",
        "M": "enero febrero marzo abril mayo junio julio agosto septiembre|setiembre octubre "
        "noviembre diciembre",
        "S": "primavera verano otoño invierno navidad|navidades",
        "N": "_ dos tres cuatro cinco seis siete ocho nueve diez once doce",
        "N=": "unos=2,5 unas=2,5 pocos=2,5 pocas=2,5 quince=15",
        "1": "un=1 una=1 uno=1",
        "O": "primero=1",
        "U": "día|días semana|semanas mes|meses año|años hora|horas minuto|minutos trimestre",
        "L": "pasado pasada pasados pasadas último última últimos últimas",
        "T": "este esta estos estas",
        "X": "próximo próxima próximos próximas",
        "A": "hace",
        "B": "antes",
        "F": "después",
        "C": "desde",
        "I": "hasta",
        "K": "entre",
        "J": "y",
        "Q": "a al",
        "i": "en durante",
        "t": "el la los las",
        "o": "de del",
        "m": "principios=0 comienzos=0 mediados=1 finales=2 fines=2",
        "w": "fin_de_semana",
    },
}
_UNITS: Final = ("day", "week", "month", "year", "hour", "minute", "quarter")


def _table(classes: Mapping[str, str]) -> dict[str, Word]:
    words: dict[str, Word] = {}
    for kind, line in classes.items():
        for number, entry in enumerate(line.split()):
            name, _, values = entry.partition("=")
            given = tuple(int(value) for value in values.split(",")) if values else ()
            if kind == "U":
                word = Word("U", unit=_UNITS[number])
            elif kind == "N" or kind in _ORDERED:
                word = Word(kind, (number if kind in "WS" else number + 1,))
            else:
                word = Word(kind[0], given)
            for spelling in name.replace("_", " ").strip().split("|"):
                words[plain_letters(spelling)] = word
    return words


WORDS: Final = {name: _table(classes) for name, classes in _TABLES.items()}
"""By language: folded words and phrases."""

STRONG_WORDS: Final = {
    name: frozenset(
        max(re.findall(r"\w+", words), key=len)
        for words, word in table.items()
        if word.kind in STRONG
    )
    for name, table in WORDS.items()
}
"""By language: the words one of which a time without a number has."""

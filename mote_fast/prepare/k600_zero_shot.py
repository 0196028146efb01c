"""The zero-shot splits of Kinetics-600: three splits of 160 of the 220 classes that are not in Kinetics-400.

Chen and Huang (Elaborative Rehearsal for Zero-shot Action Recognition, ICCV 2021) held out 60 classes for validation
three times, and published the splits; MoTE's released lists ``k160_test_split1.txt`` to ``3`` have the same classes in
the same order. 232 names of Kinetics-600 are not in Kinetics-400; twelve of these are old classes under new names, such
as "tying necktie" for "tying tie", and do not count as new.
"""

from __future__ import annotations

# Split at "; ". Sorted.
_NEW_CLASSES = """
acting in play; adjusting glasses; alligator wrestling; archaeological excavation; arguing; assembling bicycle;
attending conference; backflip (human); base jumping; bathing dog; battle rope training; blowdrying hair;
blowing bubble gum; bodysurfing; bottling; bouncing on bouncy castle; breaking boards; breathing fire; building
lego; building sandcastle; bull fighting; bulldozing; burping; calculating; calligraphy; capsizing; card
stacking; card throwing; carving ice; casting fishing line; changing gear in car; chewing gum; chiseling stone;
chiseling wood; chopping meat; chopping vegetables; clam digging; coloring in; combing hair; contorting; cooking
scallops; cosplaying; cracking back; cracking knuckles; crossing eyes; cumbia; curling (sport); cutting apple;
cutting orange; delivering mail; directing traffic; docking boat; doing jigsaw puzzle; drooling; dumpster
diving; dyeing eyebrows; embroidering; falling off bike; falling off chair; fencing (sport); fidgeting; fixing
bicycle; flint knapping; fly tying; geocaching; getting a piercing; gold panning; gospel singing in church; hand
washing clothes; head stand; historical reenactment; home roasting coffee; huddling; hugging baby; ice swimming;
installing carpet; ironing hair; jaywalking; jumping bicycle; jumping jacks; karaoke; land sailing; lawn mower
racing; laying concrete; laying stone; laying tiles; leatherworking; licking; lifting hat; lighting fire; lock
picking; longboarding; looking at phone; luge; making balloon shapes; making bubbles; making cheese; making
horseshoes; making paper aeroplanes; marriage proposal; massaging neck; moon walking; mosh pit dancing; mountain
climber (exercise); mushroom foraging; needle felting; opening door; opening refrigerator; opening wine bottle;
packing; passing soccer ball; photobombing; photocopying; pillow fight; pinching; pirouetting; planing wood;
playing beer pong; playing blackjack; playing darts; playing dominoes; playing field hockey; playing gong;
playing hand clapping games; playing laser tag; playing lute; playing maracas; playing marbles; playing netball;
playing ocarina; playing pan pipes; playing pinball; playing ping pong; playing polo; playing rubiks cube;
playing scrabble; playing with trains; poking bellybutton; polishing metal; popping balloons; pouring beer;
preparing salad; pushing wheelbarrow; putting in contact lenses; putting on eyeliner; putting on foundation;
putting on lipstick; putting on mascara; putting on sari; putting on shoes; raising eyebrows; repairing
puncture; riding snow blower; roasting marshmallows; roasting pig; rolling pastry; rope pushdown; sausage
making; sawing wood; scrapbooking; scrubbing face; separating eggs; sewing; shaping bread dough; shining
flashlight; shopping; shucking oysters; shuffling feet; sipping cup; skiing mono; skipping stone; sleeping;
smashing; smelling feet; smoking pipe; spelunking; square dancing; standing on hands; staring; steer roping;
sucking lolly; swimming front crawl; swinging baseball bat; sword swallowing; tackling; tagging graffiti;
talking on cell phone; tasting wine; threading needle; throwing knife; throwing snowballs; throwing tantrum;
throwing water balloon; tie dying; tightrope walking; tiptoeing; trimming shrubs; twiddling fingers; tying shoe
laces; using a microscope; using a paint roller; using a power drill; using a sledge hammer; using a wrench;
using atm; using bagging machine; using circular saw; using inhaler; using puppets; vacuuming floor; visiting
the zoo; wading through mud; wading through water; walking through snow; watching tv; waving hand; weaving
fabric; winking; wood burning (art); yarn spinning
"""

# Positions in the list above that each split leaves out.
_HELD_OUT = (
    "2 3 5 15 18 23 26 27 28 31 35 36 39 41 42 50 57 58 60 68 70 72 75 81 85 86 87 92 94 95 97 106 107 113 120 128 "
    "132 135 138 140 153 159 165 167 170 172 175 178 181 183 192 194 197 200 205 206 207 211 213 216",
    "1 2 3 6 11 13 15 16 21 22 25 29 30 33 36 38 48 58 59 62 63 67 71 73 77 80 83 96 97 98 103 105 108 109 110 112 "
    "113 127 131 142 146 149 150 157 158 166 171 175 177 178 184 195 199 202 208 209 213 214 218 219",
    "0 9 13 14 19 30 31 35 42 47 48 51 53 54 56 60 65 66 67 73 79 97 100 101 103 113 115 117 120 123 127 128 130 "
    "131 134 135 136 138 145 154 157 159 161 162 164 166 173 174 175 177 184 185 186 192 197 198 206 209 211 219",
)


def new_classes() -> tuple[str, ...]:
    """Return the 220 classes that are new in Kinetics-600, sorted."""
    return tuple(" ".join(_NEW_CLASSES.split()).split("; "))


def zero_shot_splits() -> tuple[tuple[str, ...], ...]:
    """Return the 160 class names of each of the three splits, in the order of their labels."""
    classes = new_classes()
    held_out = [frozenset(map(int, positions.split())) for positions in _HELD_OUT]
    return tuple(tuple(name for at, name in enumerate(classes) if at not in left_out) for left_out in held_out)

"""Each schematic in words, for those who do not see it: the alternative text in the notebook and the
description in the file. This is the only place where it is written."""

ALT = {
    "00": "A frozen weight W with a thin detour of five ranks beside it. To its right the five ranks as a "
    "river over training: streams of equal width at first; at two moments weak streams end and strong "
    "ones fork into copies. Below, the series as a line with fourteen numbered stops, from LoRA by hand "
    "to what is lost.",
    "01": "x", "02": "x", "03": "x", "04": "x", "05": "x", "06": "x", "07": "x", "08": "x", "09": "x", "10": "x", "13": "x", "14": "x",
}

"""Each schematic in words, for those who do not see it: the alternative text in the notebook and the
description in the file. This is the only place where it is written."""

ALT = {
    "00": "x passes through a frozen weight W and, beside it, through a thin detour of five ranks; both are added to y. "
    "Over training the ranks are a river whose widths are their weights: equally wide at first, then at two moments a "
    "weak one ends at a cross and a strong one forks into two. Below, the series as a line with fourteen stops, from LoRA "
    "by hand to what is lost.",
    "01": "To scale: a weight W of 352 by 128, frozen, with 45,056 numbers, and beside it alpha / r times B A. B has four "
    "columns and starts at zero, A has four rows and starts random: slivers of 1,920 numbers together, 4.3% as many, and "
    "only these train. Column i of B times row i of A is what rank i adds; alpha / r is fixed, here 8 / 4 = 2.",
    "02": "The singular values of one weight as falling bars, three times. LoRA freezes all of them and trains an adapter "
    "beside them that starts at zero; PiSSA trains the few largest, the head, and freezes the rest; MiLoRA trains the few "
    "smallest, the tail, and freezes the rest. All three start as the model you had.",
    "03": "Left, a row of W as an arrow: LoRA adds a row of s B A, which turns and lengthens it at once to V; in DoRA that "
    "sets only the direction, and the length m is a number of its own. Right, three rounds of ReLoRA: after each, the "
    "adapter is merged into W and a new one starts, and the rank of the sum grows to at most r, 2 r, 3 r. The learning rate "
    "starts from zero in each round, under one falling cosine.",
    "04": "Two budgets over a run, with seven layers each. AdaLoRA starts with four ranks in every layer, 28 in all, and "
    "prunes along a falling curve over 18 to 14; IncreLoRA starts with one in every layer, 7 in all, and grows in steps "
    "over 11 to 14. Both end with the same total, spread unevenly over the layers.",
    "05": "One rank from left to right: its row a reads the input x as one number, a·x; that is multiplied by the weight w; "
    "its column b writes it into the output. Five meters: Frobenius, the length of a times the length of b; activation, the "
    "length of b times the usual size of a·x; the learned score, w itself; gradient, b times the gradient at b; "
    "sensitivity, entry times gradient of all entries of a and b over many steps.",
    "06": "Eight ranks of two layers as bars, a with 8, 3, 1, .5 and b with .9, .8, .75, .7; a dashed line cuts off what is "
    "pruned. Top-k keeps 8, 3 and .9, .8 with two in each layer, but 8, 3, 1 and .9 with four in all. Top-p keeps 8, 3 and "
    ".9, .8, .75 with 90% of each layer's sum, but 8, 3, 1 and .9, .8 with 90% of the whole sum.",
    "07": "A weight W becomes four tiles, W/2 + N and W/2 − N in the first row and the same with another N in the second; "
    "the stream x arrives twice, each row of tiles adds up to W x, and N cancels. Without N, the twins stay equal for ever. "
    "Below: the embedding writes the stream and is copied, E E; the head reads it and is copied and halved, E/2 E/2; one "
    "weight cannot do both, so a tied head gets a weight of its own.",
    "08": "A source rank's state changes over training; the state that it had at the snapshot, at step n − lag, is copied "
    "into the slot of a weak rank at step n, and source and twin move apart. Taking a and b from then makes the jump "
    "smaller; taking Adam's moments from then makes the twins part. A schematic curve: the cosine of the twins falls with "
    "moments from then and stays level with moments of now.",
    "09": "One event of BeamLoRA on six ranks, in five frames: the ranks are weighed; sorted and cut where the running sum "
    "exceeds the share p; ranks 2 and 5 are pruned; the snapshot's ranks 1 and 4 are copied into their slots; slot and "
    "source share the mean of their scores. Below, the same as a river: half a period after the snapshot, two streams end "
    "and two fork.",
    "10": "A chat cut into tokens. The system prompt, the user's question and the tokens that open the answer are grey: they "
    "carry no loss. The tokens of the answer, 40 / 10 = 4 and #### 4, are outlined in blue and underlined: they carry the "
    "loss, and so does the end token behind them.",
    "13": "On a step: Adam's update times the learning rate changes B and A, and B A times alpha / r is added to W x. In a "
    "block: an adapter can sit beside each of q, k, v and o in the attention and gate, up and down in the MLP. In memory: "
    "weights and activations stay about as large with LoRA as when all train, gradients and Adam's moments become thin "
    "slices.",
    "14": "Left: four overlapping regions, the skills add, copy, reverse and sort, with the weight W where all four overlap; "
    "a small update stays near, inside all four, a large one goes far, into a new task and out of the old skills. Right, "
    "schematic: with the size of the update the loss on the new task falls and the loss on the old skills rises.",
}

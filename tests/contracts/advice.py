"""What usually makes a method fail a contract, and what to change in it; printed under each failure."""

READ = "Use the tensors in `found`"
UNDO = "Undo it in a `finally`, or ask for what you need by `Want`, which is undone for you."

ADVICE = {
    "test_arranged": "The map depends on the order of the sequence. Use no index of a token: `found.layout` knows "
    "which tokens are special, and where all others lie.",
    "test_bad_input": "Checks of arguments are in `TokenAttribution.attribute`: do not replace it, write `want` and "
    "`relevance`, and catch no error there.",
    "test_batches": "A sample's map depends on others of its batch. Reduce over dimensions behind the first alone: "
    "`x.amax(1, keepdim=True)` in place of `x.max()`.",
    "test_captum_tools": "Captum's tools call `attribute` on more rows, and on changed ones. Keep its signature, and "
    "nothing of one call in `self`.",
    "test_circumstances": f"The map depends on how the model is run. {READ}, no modules and no weights, and keep their "
    "precision and device.",
    "test_closeness": "A map must follow what the model computes: no `.float()`, no rounding, no constant.",
    "test_heads_that_reread": f"The head reads the input, or an argument, again. {READ}; where you call the model "
    "yourself, give each row its own input and arguments.",
    "test_hooked_layers": f"A layer computes something else than its weights say. {READ}, not its weights.",
    "test_injections": f"After an error in the model a hook, a mode or a flag stays behind. {UNDO}",
    "test_left_as_found": f"The model, its inputs or a setting is changed. {UNDO}",
    "test_manners": "`relevance` gives (B, N), or (B, N, D), of the precision and device of what `found` holds. The "
    "docstring tells the cost (`Costs ...`) and has an entry in `Args:` for each argument.",
    "test_no_tracebacks": "The method needs what this model lacks: raise a `cv.UnsupportedModelError` that names it.",
    "test_padding": "Padding counts somewhere. Where you sum or average over rows or tokens, weigh them by "
    "`found.layout.counted(x)`, (B, N): 1 for a token, 0 for padding.",
    "test_pixels": 'Give all tokens in `relevance`, (B, N); `output="pixels"` lays them over what they read.',
    "test_targets": "The gradients in `found` are those of each sample's own target: select no output yourself.",
    "test_threads": "Calls share something. Keep nothing of one call in `self` or in a module.",
    "test_zero_and_overflow": "A quotient is 0 / 0, or a sample without a map changes others. Divide within a sample, "
    "by `s.clamp(min=torch.finfo(s.dtype).tiny)`.",
}
"""By the file of the contract."""

"""Carbohydrate of a described meal, as the prior of an amount that nobody measured."""

import re

UNKNOWN_MEAL = (60.0, 0.6)  # g, log-sd: a meal was taken and nothing else is known
_UNWEIGHED = 15.0  # g: "1 piece of biscuit", "cashew nuts"
_LEAST = 3.0  # g: vegetables and meat alone

# g of carbohydrate in a g of the food as eaten; the first word that occurs in the text decides. Rounded values of the
# kind that composition tables give for cooked food; a meal's own uncertainty is the log-sd, not these digits.
_SHARES = (
    ("glucose", 1.0), ("sugar", 0.95), ("sweet potato leaves", 0.03), ("sweet potato", 0.2), ("milk cereal", 0.6),
    ("cereal", 0.6), ("biscuit", 0.65), ("oatcake", 0.6), ("cake", 0.5), ("chocolate", 0.55), ("caramel", 0.8),
    ("pancake", 0.35), ("oil pastry", 0.45), ("dough stick", 0.45), ("baked wheat", 0.5), ("crust", 0.5), ("pie", 0.4),
    ("steamed bread", 0.45), ("buckwheat bread", 0.42), ("bread", 0.48), ("burger", 0.28), ("bun", 0.35),
    ("dumpling", 0.24), ("wonton", 0.2), ("vermicelli soup", 0.08), ("vermicelli", 0.15), ("noodle", 0.24),
    ("sticky rice", 0.42), ("porridge", 0.1), ("fried rice", 0.25), ("vegetable and rice", 0.2), ("rice", 0.26),
    ("coarse grain", 0.27), ("corn soup", 0.06), ("and corn", 0.06), ("corn", 0.19), ("with yam", 0.06),
    ("and yam", 0.06), ("yam", 0.15), ("taro", 0.18), ("potato", 0.12), ("lotus", 0.1), ("pumpkin", 0.06),
    ("peanut", 0.15), ("walnut", 0.15), ("cashew", 0.25), ("snacks", 0.5), ("apple", 0.13), ("watermelon", 0.07),
    ("plum", 0.1), ("loquat", 0.1), ("strawberry", 0.07), ("milk", 0.05), ("coffee", 0.03), ("gluten", 0.1),
    ("bean curd", 0.04), ("sprout", 0.03), ("green bean", 0.06), ("cowpea", 0.05), ("bean", 0.06),
    ("starch", 0.15), ("meatball", 0.06), ("egg", 0.02),
)  # fmt: skip
_OTHER = 0.04  # vegetables, meat and fish, cooked


def share(food: str) -> float:
    """Gram of carbohydrate in one gram of `food` (text)."""
    text = food.lower()
    return next((value for word, value in _SHARES if word in text), _OTHER)


def described(text: str) -> tuple[float, float] | None:
    """(median g, log-sd) of the carbohydrate in a meal written as "Egg 61 g; Rice 120 g".

    None where the text says that nothing was eaten. Weighed meals get a log-sd of 0.4; where a part was not
    weighed, 0.6; where nothing was, 0.8. "data not available" is a meal of unknown content.
    """
    if "not available" in text.lower():
        return UNKNOWN_MEAL
    if "fasting" in text.lower():
        return None
    items = [item.strip() for item in re.split(r"[;\n]", text) if item.strip()]
    weights = [re.search(r"([\d.]+)\s*(?:g|ml)\b", item) for item in items]
    known = sum(share(item) * float(weight[1]) for item, weight in zip(items, weights, strict=True) if weight)
    guessed = sum(weight is None for weight in weights)
    sd = 0.4 if not guessed else 0.6 if guessed < len(items) else 0.8
    return max(_LEAST, round(known + _UNWEIGHED * guessed, 1)), sd


def energy(kcal: float) -> tuple[float, float]:
    """(median g, log-sd) of the carbohydrate in a meal of known energy: 45 % of it, at 4 kcal/g."""
    return max(_LEAST, round(kcal * 0.45 / 4, 1)), 0.6

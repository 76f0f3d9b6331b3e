"""Many short sessions in a row on one lab, while its parts die, freeze and are cut off."""

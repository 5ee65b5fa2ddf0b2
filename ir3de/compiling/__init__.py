"""From a fitted router to a compiled one: what needs torch once, so that routing does not."""

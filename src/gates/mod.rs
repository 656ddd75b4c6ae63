//! Gates: one file each, which gathers (I/O, as the plan's account) and then judges (pure, ordered checks).

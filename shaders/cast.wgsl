fn evaluate(i: u32) { store_y(i, Target(load_x(i))); }

fn evaluate(i: u32) { store_y(i, 1.0); }

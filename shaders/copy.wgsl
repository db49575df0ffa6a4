fn evaluate(i: u32) { store_y(i, load_x(i)); }

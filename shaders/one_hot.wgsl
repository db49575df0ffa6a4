fn evaluate(i: u32) {
  store_y(i / DEPTH, i % DEPTH, select(0.0, 1.0, load_index(i / DEPTH) == i32(i % DEPTH)));
}

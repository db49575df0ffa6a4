fn evaluate(i: u32) {
  store_y(i / params.depth, i % params.depth, select(0.0, 1.0, load_index(i / params.depth) == i32(i % params.depth)));
}

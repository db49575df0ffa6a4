// A pixel outside the image has a wrapped, huge coordinate or one past the end: one comparison finds it.
fn evaluate(i: u32) {
  let c = i % C;
  let ow = i / C % OW;
  let oh = i / (C * OW) % OH;
  let n = i / (C * OW * OH);
  var best = -1;
  var largest = 0.0;
  for (var kh = 0u; kh < KH; kh++) {
    for (var kw = 0u; kw < KW; kw++) {
      let h = oh * STRIDE_H + kh - PAD_H;
      let w = ow * STRIDE_W + kw - PAD_W;
      if (h < H && w < W) {
        let value = load_x(n, h, w, c);
        if (best < 0 || (!math_is_nan(largest) && (value > largest || math_is_nan(value)))) {
          best = i32(h * W + w);
          largest = value;
        }
      }
    }
  }
  store_y(n, oh, ow, c, select(largest, -math_infinity(), best < 0));
  store_index(n, oh, ow, c, best);
}

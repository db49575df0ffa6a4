// A pixel outside the image has a wrapped, huge coordinate or one past the end: one comparison finds it.
fn evaluate(i: u32) {
  let c = i % params.c;
  let ow = i / params.c % params.ow;
  let oh = i / (params.c * params.ow) % params.oh;
  let n = i / (params.c * params.ow * params.oh);
  var best = -1;
  var largest = 0.0;
  for (var kh = 0u; kh < params.kh; kh++) {
    for (var kw = 0u; kw < params.kw; kw++) {
      let h = oh * params.stride_h + kh - params.pad_h;
      let w = ow * params.stride_w + kw - params.pad_w;
      if (h < params.h && w < params.w) {
        let value = load_x(n, h, w, c);
        if (best < 0 || (!math_is_nan(largest) && (value > largest || math_is_nan(value)))) {
          best = i32(h * params.w + w);
          largest = value;
        }
      }
    }
  }
  store_y(n, oh, ow, c, select(largest, -math_infinity(), best < 0));
  store_index(n, oh, ow, c, best);
}

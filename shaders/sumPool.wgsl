// A pixel outside the image has a wrapped, huge coordinate or one past the end: one comparison finds it.
fn evaluate(i: u32) {
  let c = i % params.c;
  let ow = i / params.c % params.ow;
  let oh = i / (params.c * params.ow) % params.oh;
  let n = i / (params.c * params.ow * params.oh);
  var sum = 0.0;
  for (var kh = 0u; kh < params.kh; kh++) {
    for (var kw = 0u; kw < params.kw; kw++) {
      let h = oh * params.stride_h + kh - params.pad_h;
      let w = ow * params.stride_w + kw - params.pad_w;
      if (h < params.h && w < params.w) { sum += load_x(n, h, w, c); }
    }
  }
  store_y(n, oh, ow, c, sum);
}

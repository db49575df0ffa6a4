// A pixel outside the image has a wrapped, huge coordinate or one past the end: one comparison finds it.
fn evaluate(i: u32) {
  let c = i % C;
  let ow = i / C % OW;
  let oh = i / (C * OW) % OH;
  let n = i / (C * OW * OH);
  var sum = 0.0;
  for (var kh = 0u; kh < KH; kh++) {
    for (var kw = 0u; kw < KW; kw++) {
      let h = oh * STRIDE_H + kh - PAD_H;
      let w = ow * STRIDE_W + kw - PAD_W;
      if (h < H && w < W) { sum += load_x(n, h, w, c); }
    }
  }
  store_y(n, oh, ow, c, sum);
}

// An input pixel gathers from every window that covers it: output (h + PAD_H - kh) / STRIDE_H, if that is whole and
// inside (a negative one wraps to a huge number). `takes` says whether the window took its value from this pixel.
fn evaluate(i: u32) {
  let c = i % C;
  let w = i / C % W;
  let h = i / (C * W) % H;
  let n = i / (C * W * H);
  var sum = 0.0;
  for (var kh = 0u; kh < KH; kh++) {
    for (var kw = 0u; kw < KW; kw++) {
      let y = h + PAD_H - kh;
      let x = w + PAD_W - kw;
      if (y % STRIDE_H == 0u && x % STRIDE_W == 0u && y / STRIDE_H < OH && x / STRIDE_W < OW) {
        if (takes(n, y / STRIDE_H, x / STRIDE_W, c, i32(h * W + w))) { sum += load_g(n, y / STRIDE_H, x / STRIDE_W, c); }
      }
    }
  }
  store_dx(n, h, w, c, sum);
}

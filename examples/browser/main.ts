/**
 * Loads a checkpoint of `train sinusoid` and draws the network that its hypernetwork makes of the points clicked.
 *
 *     npm start && cp runs/sinusoid/checkpoint.safetensors examples/browser/
 *     npx esbuild examples/browser/main.ts --bundle --format=esm --outdir=examples/browser --servedir=examples/browser
 *
 * `?backend=webgpu` uses WebGPU even where it runs on the CPU, `?backend=ref` plain TypeScript.
 */
import {
  type BackendName,
  dense,
  fullHead,
  hypernet,
  key,
  relu,
  scope,
  serial,
  setEncoder,
  tensor,
} from 'weightloom';
import { readSafetensors } from 'weightloom/io';
import { unpackParams } from 'weightloom/meta';
import { init } from 'weightloom/predict';

const CHECKPOINT = 'checkpoint.safetensors';
const [svg, line, status] = ['svg', 'polyline', 'output'].map(name => document.querySelector(name)!);

/** The network of `train sinusoid`. */
const net = hypernet({
  target: serial(dense(40), relu, dense(40), relu, dense(1, { gain: 1 })),
  inShape: [1],
  condition: setEncoder([64, 64, 64]),
  trunk: serial(dense(64), relu, dense(64)),
  head: fullHead({ base: true }),
});

async function main(): Promise<void> {
  const wanted = new URLSearchParams(location.search).get('backend') ?? 'auto';
  const backend = await init({ backend: wanted as BackendName });
  const file = await fetch(CHECKPOINT);
  if (!file.ok) throw new Error(`${CHECKPOINT}: ${file.status} ${file.statusText}`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const phi = unpackParams(net.init(key(0)), readSafetensors(bytes), CHECKPOINT);

  const column = (values: number[]) => tensor(Float32Array.from(values), [1, values.length, 1]);
  const xs = Array.from({ length: 201 }, (_, i) => (i - 100) / 20);
  const points: { x: number; y: number }[] = [];
  const draw = async () => {
    const start = performance.now();
    const count = points.length; // more may be clicked before the values are here
    using curve = scope(() => {
      const support = { x: column(points.map(({ x }) => x)), y: column(points.map(({ y }) => y)) };
      const theta = net.generate(phi, net.encode(phi, support));
      return net.target.apply(theta, column(xs));
    });
    const ys = await curve.data();
    line.setAttribute('points', xs.map((x, i) => `${x},${-ys[i]}`).join(' '));
    const milliseconds = (performance.now() - start).toFixed(1);
    status.textContent = `${count} points, ${net.weightCount} weights in ${milliseconds} ms on ${backend.name}`;
  };
  svg.addEventListener('click', event => {
    const { clientX, clientY } = event as MouseEvent;
    const { left, top, width, height } = svg.getBoundingClientRect();
    const point = { x: (10 * (clientX - left)) / width - 5, y: 5 - (10 * (clientY - top)) / height };
    points.push(point);
    const dot = document.createElementNS('http://www.w3.org/2000/svg', 'ellipse');
    for (const [name, value] of Object.entries({ cx: point.x, cy: -point.y, rx: 0.05, ry: 0.08 }))
      dot.setAttribute(name, String(value));
    svg.append(dot);
    void draw().catch(tell);
  });
  status.textContent = `ready on ${backend.name}`;
}

const tell = (error: unknown) => {
  status.textContent = String(error);
};
void main().catch(tell);

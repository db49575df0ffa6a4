/** Bundles, a server on this machine, and headless Chromium on the software WebGPU adapter it ships with. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type BuildOptions, build } from 'esbuild';
import { type Browser, chromium, type Page } from 'playwright-core';
import { findChromium } from '../scripts/chromium.mjs';

const root = join(import.meta.dirname, '..');

const bundled = async (options: BuildOptions): Promise<Uint8Array> => {
  const common = { bundle: true, minify: true, platform: 'browser', target: 'es2022' } as const;
  const { outputFiles } = await build({ ...common, ...options, write: false, logLevel: 'silent' });
  return outputFiles[0].contents;
};

/** A minified bundle for browsers of a file, by its path from the root. */
export const bundleFile = (path: string): Promise<Uint8Array> =>
  bundled({ entryPoints: [join(root, path)], format: 'esm' });

/**
 * The same of module text that imports `weightloom`, or files by paths from this folder. As 'iife' it is a script that
 * leaves its exports in the global `page`.
 */
export const bundle = (contents: string, format: 'esm' | 'iife' = 'esm'): Promise<Uint8Array> =>
  bundled({ stdin: { contents, resolveDir: join(root, 'tests'), loader: 'ts' }, format, globalName: 'page' });

/** Served files by path, with their types. */
export type Site = Record<string, { type: string; body: string | Uint8Array }>;

/** A browser on a site, with everything its pages complained about. */
export class Visit {
  readonly complaints: string[] = [];
  private constructor(
    readonly page: Page,
    private readonly browser: Browser,
    private readonly server: Server,
  ) {
    page.on('pageerror', error => this.complaints.push(String(error)));
    page.on('console', message => {
      if (message.type() === 'error') this.complaints.push(message.text());
    });
  }

  /** Serves the site on a port of its own and opens a page of it. Throws where there is no Chromium. */
  static async to(site: Site, path = '/'): Promise<Visit> {
    const executablePath = findChromium();
    if (!executablePath) throw new Error('no Chromium: run node scripts/chromium.mjs');
    const server = createServer(({ url }, response) => {
      const file = site[new URL(url!, 'http://localhost').pathname];
      response.writeHead(file ? 200 : 404, { 'content-type': file?.type ?? 'text/plain' }).end(file?.body);
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const browser = await chromium.launch({ executablePath, args: FLAGS });
    const visit = new Visit(await browser.newPage(), browser, server);
    await visit.page.goto(`http://localhost:${(server.address() as AddressInfo).port}${path}`);
    return visit;
  }

  async end(): Promise<void> {
    await this.browser.close();
    this.server.close();
  }
}

/** Chromium as root, on SwiftShader, talking to nobody. */
const FLAGS = [
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Bundles, a server on this machine, and headless Chromium on the software WebGPU adapter it ships with. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { build } from 'esbuild';
import { type Browser, chromium, type Page } from 'playwright-core';
import { findChromium } from '../scripts/chromium.mjs';

const root = join(import.meta.dirname, '..');

/** A minified bundle for browsers of module text that imports `weightloom` or files beside this one. */
export async function bundle(code: string, format: 'esm' | 'iife' = 'esm'): Promise<Uint8Array> {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: join(root, 'tests'), loader: 'ts' },
    bundle: true,
    minify: true,
    platform: 'browser',
    target: 'es2022',
    format,
    globalName: format === 'iife' ? 'page' : undefined,
    write: false,
    logLevel: 'silent',
  });
  return outputFiles[0].contents;
}

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

  /** Serves the site on a port of its own and opens its `/`. Throws where there is no Chromium. */
  static async to(site: Site): Promise<Visit> {
    const executablePath = findChromium();
    if (!executablePath) throw new Error('no Chromium: run node scripts/chromium.mjs');
    const server = createServer(({ url }, response) => {
      const file = site[new URL(url!, 'http://localhost').pathname];
      response.writeHead(file ? 200 : 404, { 'content-type': file?.type ?? 'text/plain' }).end(file?.body);
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const browser = await chromium.launch({ executablePath, args: FLAGS });
    const visit = new Visit(await browser.newPage(), browser, server);
    await visit.page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`);
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

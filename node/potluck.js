#!/usr/bin/env node
// The package's command. In a checkout it runs the sources; an installed package holds the built program only, because
// Node.js strips no types below node_modules.
import { existsSync } from 'node:fs';
import './node-version.js';

const source = new URL('./main.ts', import.meta.url);
void import((existsSync(source) ? source : new URL('../dist/node/main.js', import.meta.url)).href);

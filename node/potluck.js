#!/usr/bin/env -S node --max-semi-space-size=8
// The package's command. In a checkout it runs the sources; an installed package holds the built program only, because
// Node.js strips no types below node_modules. Eight megabytes for young objects instead of thirty-two: a node at rest keeps
// some 40 MB less.
import { existsSync } from 'node:fs';
import './node-version.js';

const source = new URL('./main.ts', import.meta.url);
void import((existsSync(source) ? source : new URL('../dist/node/main.js', import.meta.url)).href);

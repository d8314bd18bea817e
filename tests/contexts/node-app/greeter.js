"use strict";

const ms = require("ms");

console.log(`An hour has ${ms("1h")} milliseconds`);

// Loaded before Azurite: makes LokiJS, which it keeps its queues in, take few documents out one by
// one. By itself LokiJS sorts all indices of a collection anew for every removal of a batch, and
// Azurite removes batches of none or one for every get, update and delete, and of one for every
// message that its garbage collector finds: after some thousand messages it stands still for a
// minute. What is stored and answered is the same.
"use strict";

const path = require("node:path");
const lokijs = require.resolve("lokijs", { paths: [path.dirname(process.argv[1])] });
const { Collection } = require(lokijs);
const FEW = 16;

const { removeBatch, removeBatchByPositions } = Collection.prototype;

Collection.prototype.removeBatch = function (batch) {
    if (batch.length > FEW) return removeBatch.call(this, batch);
    for (const document of [...batch]) this.remove(document);
};

Collection.prototype.removeBatchByPositions = function (positions) {
    if (positions.length > FEW) return removeBatchByPositions.call(this, positions);
    this.ensureId();
    const ids = positions.map((position) => this.idIndex[position]);
    for (const id of ids) this.remove(id);
};

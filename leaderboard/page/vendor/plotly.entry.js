// What the page draws: scatter (always in), radar and heat map.
const Plotly = require("plotly.js/lib/core");
Plotly.register([require("plotly.js/lib/scatterpolar"), require("plotly.js/lib/heatmap")]);
module.exports = Plotly;

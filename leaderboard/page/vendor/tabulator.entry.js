// The modules of the table that the page uses; layout and language are in the core.
import {
  FilterModule, FormatModule, FrozenColumnsModule, GroupRowsModule, ResizeTableModule, SortModule, Tabulator,
} from "tabulator-tables";
Tabulator.registerModule([
  FilterModule, FormatModule, FrozenColumnsModule, GroupRowsModule, ResizeTableModule, SortModule,
]);
module.exports = Tabulator;

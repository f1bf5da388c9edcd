//! The tests: one program, each test on repositories and processes of its own, all in parallel.

mod support;

mod acp;
mod agents;
mod bad_input;
mod bisecting;
mod detached;
mod doctor;
mod evidence;
mod fanout;
mod file_systems;
mod fold;
mod help;
mod hooks;
mod hostile_workers;
mod killed;
mod layers;
mod ledger_contract;
mod leftovers;
mod limits;
mod mcp;
mod merging;
mod no_isolate;
mod picture;
mod places;
mod provisioning;
mod reading;
mod repositories;
mod review;
mod reviewing;
mod sharing;
mod steering;
mod stopped;
mod story;
mod submodules;
mod taking;

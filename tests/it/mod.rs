mod layers;
mod setup;

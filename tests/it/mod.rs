mod chat;
mod hub;
mod stop;
mod text_stream;
mod tokenizer;

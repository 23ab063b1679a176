namespace striate {}
